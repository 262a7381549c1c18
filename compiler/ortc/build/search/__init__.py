"""Search for the best variant: rank, tune sessions, mix precisions, race at other shapes."""
