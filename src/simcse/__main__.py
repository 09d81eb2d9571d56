"""``python -m simcse`` is the command ``simcse``."""

from simcse.cli.main import main

if __name__ == "__main__":
    main()
