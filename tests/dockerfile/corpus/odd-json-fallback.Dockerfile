FROM a:1
RUN ["echo", "exec"]
RUN ['echo', 'shell']
RUN [ "$A" = b ] && echo yes
CMD []
ENTRYPOINT [ ]
VOLUME ["/a b", "/c"]
VOLUME /d /e
COPY ["a b", "/c d/"]
SHELL ["/bin/sh", "-ec"]
