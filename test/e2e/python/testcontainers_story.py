"""What users of the Python package `testcontainers` do, in guests that boot."""

from urllib.request import urlopen

from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network
from testcontainers.core.wait_strategies import HttpWaitStrategy, LogMessageWaitStrategy

STARTUP_S = 600

script = "mkdir /tmp/www; echo a page > /tmp/www/page; echo is up; exec httpd -f -p 8080 -h /tmp/www"
with Network() as network:
    web = (
        DockerContainer("alpine:latest")
        .with_command(["sh", "-c", script])
        .with_env("GREETING", "hello")
        .with_exposed_ports(8080)
        .with_network(network)
        .with_network_aliases("web")
        .waiting_for(LogMessageWaitStrategy("is up").with_startup_timeout(STARTUP_S))
    )
    with web:
        address = f"http://{web.get_container_host_ip()}:{web.get_exposed_port(8080)}/page"
        HttpWaitStrategy(8080, "/page").for_status_code(200).with_startup_timeout(STARTUP_S).wait_until_ready(web)
        assert urlopen(address).read() == b"a page\n"
        code, output = web.exec(["sh", "-c", "echo $GREETING; exit 3"])
        assert (code, output) == (3, b"hello\n"), (code, output)
        assert b"is up" in web.get_logs()[0]
        assert web.get_wrapped_container().status in ("running", "created")
print("all is well")
