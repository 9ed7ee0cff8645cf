ARG PYTHON=3.13
FROM python:${PYTHON}-slim AS base
ENV POETRY_VERSION=1.8.3 \
    POETRY_HOME="/opt/poetry" \
    # a comment between
    POETRY_VIRTUALENVS_IN_PROJECT=true
FROM base AS dependencies
RUN curl -sSL https://install.python-poetry.org | python3 -
WORKDIR /app
COPY pyproject.toml poetry.lock ./
RUN $POETRY_HOME/bin/poetry install --only main --no-root
FROM base AS runtime
COPY --from=dependencies /app/.venv /app/.venv
COPY ./src /app/src
ENTRYPOINT ["/app/.venv/bin/python"]
CMD ["-m", "src.main"]
