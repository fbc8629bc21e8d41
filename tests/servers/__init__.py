"""Real servers for the tests and the demo: how to find, start, question and break them.

Knows the programs and their command lines; must not know the addon's code. Import from the modules: nothing is
re-exported here, so that ``scripts/servers`` can ask ``binaries`` with nothing but the standard library.
"""
