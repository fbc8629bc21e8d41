"""Fuzzing: hostile input for each parser that a stranger, a writer of the storage or a CA reaches.

    target      what a target is, and the rules that every one holds
    targets/    the targets, by what they read
    mutators    changes that know JSON, PEM and lines
    engine      runs one target with atheris, in a process of its own
    minimizer   makes a failing input small
    corpus/     inputs that once failed, and some that reach far; test_corpus replays them

``scripts/fuzz`` runs them; docs/explanation/fuzzing.md tells how to add one.
"""
