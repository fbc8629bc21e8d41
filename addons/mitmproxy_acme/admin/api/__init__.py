"""The HTTP server of the admin API: connections, routes, handlers and their OpenAPI document.

This package knows HTTP; what an answer says comes from the modules beside it.
"""
