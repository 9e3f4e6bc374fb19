"""Load tests of a server: requests, figures, page."""
