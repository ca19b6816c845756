"""Small networks trained by this project (``featbank:NAME``): the shipped ones and those a user distilled."""
