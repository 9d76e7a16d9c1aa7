"""What the client tests share: brokers under test, certificates, and thin wrappers of the clients."""
