"""The embedded cluster: its programs, its images, and the real Kubernetes made of them."""
