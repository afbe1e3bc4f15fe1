# Open MPI: no daemon, only programs.

install() { have mpirun || packages openmpi-bin; }
start() { test_user; }
stop() { :; }
ready() { have mpirun && id "$TEST_USER" >/dev/null 2>&1; }
exports() { echo "export ENGINE_USER=$TEST_USER"; }
