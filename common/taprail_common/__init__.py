"""What terminal and gateway must agree on; no I/O beyond reading a configuration file."""
