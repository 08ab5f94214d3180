"""Routers, guests and the outside world on one machine: the demo and the integration tests."""
