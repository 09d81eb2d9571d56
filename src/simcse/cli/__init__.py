"""The command line: commands validate, call the library and print."""
