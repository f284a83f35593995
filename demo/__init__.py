"""The demo's corpus, training, classifier, measures and page; core never imports it."""
