"""The demo's corpus, training, scorer, classifier and page; core never imports it."""
