"""`python -m fedtwin` is the command `fedtwin`."""

from fedtwin.cli import main

if __name__ == "__main__":
    main()
