

   # a comment
FROM	a:1		AS	x

	RUN	echo	 a  b
EXPOSE	80		81
ENV	a=b	c=d
ENV	old	value  with blanks
