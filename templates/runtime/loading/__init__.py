"""The parts of the loader: loader.py beside this directory is the program, and gives `Model` its public name."""
