FROM python
COPY . /app
WORKDIR /app
RUN pip install -r requirements.txt
ENV SECRET_KEY=changeme
CMD python app.py
