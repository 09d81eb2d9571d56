"""Every format read or written; nothing outside this package opens a file."""
