"""HTTP: replies to http-01 challenges, and bounds for what a client of HTTP/1 or HTTP/2 may send."""
