FROM a:1 AS b
FROM c:1
RUN --mount=target=/x --mount=type=bind,from=b,src=/y,dst=/y,rw ls
RUN --mount=type=cache,id=apt,target=/var/cache/apt,sharing=locked,mode=0755,uid=0,gid=0 apt-get update
RUN --mount=type=tmpfs,target=/tmp,size=64m --mount=type=secret,id=k,env=KEY,required make
RUN --mount=type=ssh,id=default,target=/agent.sock,mode=0600 git fetch
RUN --mount=type=cache,from=b,source=/seed,target=/cache,ro --security=sandbox --network=default true
