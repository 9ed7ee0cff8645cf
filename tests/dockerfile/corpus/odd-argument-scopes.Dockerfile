ARG A=1
ARG B=${A}2
ARG C
FROM a:$B AS one
ARG A
ARG B=default-$A
ENV FROM_ARG=$B EMPTY=${C:-none}
RUN echo $A $B
FROM one AS two
ARG D="with blank" E='single $A' F
RUN echo "$D"
FROM ${C:-scratch}
COPY --from=two /etc/hostname /
