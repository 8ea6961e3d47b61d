"""What the demo and the end-to-end tests share: processes, a running stack, a Spark cluster, the scan for plaintext."""
