"""A syntax error."""

study = Study(recipe=
