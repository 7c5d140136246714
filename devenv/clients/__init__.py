"""The only code that reaches outside: programs, Helm, the Kubernetes API. Foreign exceptions stop here."""
