"""The public contract's messages: what is sent and answered over HTTP, for both of its ends.

Requests refuse what they do not know; answers may carry more at any time. The gateway's own table
of addresses says which is which (`taprail_gateway.api.routes`); what a terminal signs is in `wire`.
"""
