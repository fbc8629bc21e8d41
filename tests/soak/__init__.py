"""The soak: real nodes on a real store, under load and under faults that one seed draws, for a minute or for hours.

``faults`` draws what goes wrong, ``world`` has the servers and does it, ``clients`` visit all the while, ``issued`` is
what the CA did, ``resources`` what the processes use, ``rules`` says which failure has an excuse, ``report`` prints.
``main`` connects them. Knows the product only as its users do: options, ports, logs, metrics of the kernel.
"""
