"""devenv: one command that brings a development environment on Kubernetes to what it should be."""

__version__ = "0.1.0"
