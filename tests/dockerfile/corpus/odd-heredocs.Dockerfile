FROM a:1
RUN <<FIRST cat > /1 && cat <<-"SECOND" > /2 && cat <<'THIRD' 3<<FOURTH
first $A
FIRST
	second $A
	SECOND
third \
# not a comment
THIRD
FOURTH
RUN <<EOF
#!/usr/bin/env python3
print("hi")
EOF
COPY <<a.txt <<b.txt "c.txt" /to/
$HOME
a.txt
b
b.txt
ADD --chmod=0644 <<-robots.txt /srv/
	User-agent: *
	robots.txt
RUN cat <<E
inside ${PATH}
E
