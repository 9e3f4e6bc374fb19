"""`python -m thinktune`: the command line where its script is not on the PATH."""

from thinktune.cli.main import main

if __name__ == "__main__":
    main()
