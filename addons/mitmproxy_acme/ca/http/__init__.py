"""How requests to a CA travel: connections, time limits, and the hosts that may be asked.

This room knows HTTP; it must not know what is ordered.
"""
