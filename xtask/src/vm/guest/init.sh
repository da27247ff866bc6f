#!/bin/busybox sh
# A test machine's only service: runs the tests, one by one, and reports on the console in lines that begin with @@.
/bin/busybox --install -s /bin
export PATH=/bin:/usr/bin:/sbin:/usr/sbin HOME=/root TMPDIR=/var/tmp
hostname guest
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm /tmp /var/run
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t cgroup2 cgroup /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf
mount -t tracefs tracefs /sys/kernel/tracing
mount -t debugfs debugfs /sys/kernel/debug 2>/dev/null
mount -t securityfs security /sys/kernel/security 2>/dev/null
ip link set lo up
for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do
    echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control
done

say() {
    echo "@@ $*"
}

# A daemon without a network, and the image that container tests run: only /workload and an empty /tmp.
start_docker() {
    [ -n "$DOCKER_HOST" ] && return
    export DOCKER_HOST=unix:///run/docker.sock SPARK_TRACE_IMAGE=$IMAGE
    dockerd --data-root /var/lib/docker --exec-root /run/docker --pidfile /run/docker.pid --host "$DOCKER_HOST" \
        --iptables=false --ip6tables=false --ip-forward=false --bridge=none --storage-driver=overlay2 \
        >/results/dockerd.txt 2>&1 &
    for try in $(seq 120); do
        docker version >/dev/null 2>&1 && break
        sleep 0.5
    done
    tar -c -C /guest/image . | docker import - "$SPARK_TRACE_IMAGE" >/dev/null ||
        say broken "dockerd does not work: $(tail -n 3 /results/dockerd.txt)"
}

# Whether a test's name has one of the wanted parts in it.
wanted() {
    [ -n "$FILTER" ] || return 0
    for part in $FILTER; do
        case $1 in *"$part"*) return 0 ;; esac
    done
    return 1
}

run_tests() {
    mkdir -p /results "$SPARK_TRACE_TEST_DIR"
    say release "$(uname -r)" "$(uname -m)" "$(awk '/^KernelPageSize/ { print $2 * 1024; exit }' /proc/self/smaps)"
    # With the stand-in, so that hooks on NVIDIA's modules have something to attach to.
    for module in nvidia nvidia-uvm; do
        [ ! -f "$SPARK_TRACE_STAND_IN/$module.ko" ] || insmod "$SPARK_TRACE_STAND_IN/$module.ko"
    done
    "$SPARK_TRACE_BIN" doctor --format json >/results/doctor.json 2>/results/doctor.err
    say doctor $?
    rmmod nvidia-uvm nvidia 2>/dev/null
    cat /results/doctor.err
    for program in /guest/tests/*; do
        kind=${program##*/}
        case $kind in
        *.so) continue ;;
        container) [ -n "$CONTAINERS" ] || continue ;;
        esac
        "$program" --list --format terse --include-ignored 2>/dev/null | sed -n 's/: test$//p' >/tmp/tests
        while read -r path <&3; do
            # A module of the program, and a test in it.
            test=${path##*::}
            suite=$kind::${path%::*}
            wanted "$suite::$test" || continue
            case " $LEFT_OUT " in *" $suite "*) continue ;; esac
            [ $kind != container ] || start_docker
            # An emulated CPU shares its machine with others: what fails is tried again, and that is told.
            for try in 1 2; do
                say start "$suite" "$test"
                start=$(cut -d' ' -f1 /proc/uptime)
                timeout -s KILL "$LIMIT" "$program" --exact "$path" --include-ignored --show-output \
                    --test-threads=1 </dev/null >/tmp/output 2>&1
                status=$?
                cat /tmp/output
                say end "$suite" "$test" "$status" "$start" "$(cut -d' ' -f1 /proc/uptime)"
                [ $status = 0 ] && break
            done
        done 3</tmp/tests
    done
    dmesg >/results/dmesg.txt
    hand_over
    say done
}

# What lies in /results, to who has started the machine.
hand_over() {
    for controller in /sys/class/nvme/*; do
        read -r serial <"$controller/serial"
        [ "$serial" = results ] && tar -c -C /results . >"/dev/${controller##*/}n1"
    done
    sync
}

. /guest/environment
case $MODE in
shell)
    echo "A test machine: programs are in /guest, results in /results. 'exit' ends it."
    setsid cttyhack sh
    ;;
command)
    mkdir -p /results
    # It may call start_docker.
    (. /guest/command)
    hand_over
    ;;
*)
    run_tests
    ;;
esac
poweroff -f
