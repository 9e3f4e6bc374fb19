"""The model that training and evaluation share: the frozen base, its adapter, and how a packed row
goes through them. It knows neither what a row is trained for nor where it comes from."""
