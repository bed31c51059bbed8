"""The reference application: sentiment of film reviews, from raw data to a page that answers."""
