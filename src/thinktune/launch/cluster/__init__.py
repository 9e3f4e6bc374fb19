"""One Kubernetes cluster: its API, its capacity, the charts and their releases."""
