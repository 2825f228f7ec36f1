# One image for operator, pollers, runs and inspections. Build: docker build -t cloacina:0.1.0 .
# Where no registry and no Docker are to be had, image/build.sh makes the same from this file and a base of debootstrap:
# it reads the last stage below, so keep that to the instructions that are here.
ARG BASE=python:3.12-slim

FROM ${BASE} AS build
ARG SOURCE_DATE_EPOCH=0
# Where no package index is to be had: put the wheels into image/wheels, and say WHEELS=/source/image/wheels.
ARG WHEELS=
COPY image /source/image
RUN /source/image/install.sh /source /opt/cloacina dependencies
COPY . /source
RUN /source/image/install.sh /source /opt/cloacina

FROM ${BASE}
LABEL org.opencontainers.image.title="cloacina"
LABEL org.opencontainers.image.description="Packaged triggers in Python: operator, pollers and runs"
LABEL org.opencontainers.image.licenses="Apache-2.0"
LABEL org.opencontainers.image.version="0.1.0"
COPY --from=build /opt/cloacina /opt/cloacina
ENV PATH="/opt/cloacina/bin:/usr/local/bin:/usr/bin:/bin"
ENV PYTHONPYCACHEPREFIX="/opt/cloacina/pycache"
ENV PYTHONDONTWRITEBYTECODE="1"
ENV PYDANTIC_DISABLE_PLUGINS="__all__"
ENV PYTHONUNBUFFERED="1"
ENV HOME="/tmp"
WORKDIR /tmp
USER 65532:65532
CMD ["cloaca", "--help"]
