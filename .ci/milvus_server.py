"""Run a Milvus server on this machine until it is stopped; says "up" once it answers. Needs PyPI's milvus==2.3.5."""

import signal
import sys

from milvus import MilvusServer

stops = {signal.SIGTERM, signal.SIGINT}
signal.pthread_sigmask(signal.SIG_BLOCK, stops)  # they wait for sigwait
server = MilvusServer(wait_for_started=True)
server.set_base_dir(sys.argv[1])
server.listen_port = int(sys.argv[2])
server.start()
print("up", flush=True)
signal.sigwait(stops)
server.stop()
