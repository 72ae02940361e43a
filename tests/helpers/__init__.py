"""What several tests share: small models, data, runs of the tools, files that try to do harm."""
