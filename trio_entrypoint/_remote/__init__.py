"""Ground floor: clients of what decides beyond one machine (etcd, the Kubernetes API)."""
