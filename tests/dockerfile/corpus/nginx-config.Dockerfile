FROM nginx:1.27
LABEL org.opencontainers.image.title="site" \
      org.opencontainers.image.description="A site with \"quotes\"" \
      maintainer='A B <a@example.com>'
COPY nginx.conf /etc/nginx/nginx.conf
ADD --chown=nginx:nginx site.tar.gz /usr/share/nginx/html/
EXPOSE 80 443/tcp 8443/udp
STOPSIGNAL SIGTERM
CMD ["nginx", "-g", "daemon off;"]
