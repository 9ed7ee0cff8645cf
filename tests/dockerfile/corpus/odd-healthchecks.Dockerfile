FROM a:1
HEALTHCHECK NONE
HEALTHCHECK CMD curl -f http://localhost/ || exit 1
HEALTHCHECK --interval=1m30s --timeout=250ms --start-period=0s --start-interval=2.5s --retries=5 CMD ["/check", "-v"]
