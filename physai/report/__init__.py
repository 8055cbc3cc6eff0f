"""One offline HTML file that says what was made, how well it does, and what it was made from."""
