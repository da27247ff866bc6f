# The published comparison in small: the same program natively and in Docker, each with an engine of $SIZE MiB that it
# builds in its workspace from a checkpoint; then again with one workspace and an empty page cache.
SIZE=${SIZE:-256}
start_docker
echo "docker runs"
cd /var/tmp
trace=/guest/spark-trace
# An image with the libraries that the program needs, in a layer of its own.
mkdir -p image/bin image/guest image/tmp image/model
cp /bin/busybox image/bin/
for name in sh mkdir cp cat; do ln -s busybox image/bin/$name; done
for library in /lib/*/libc.so.6 /lib/*/libm.so.6 /lib/*/libgcc_s.so.1 /lib/*/libdl.so.2 /lib/*/libpthread.so.0 \
    /lib/*/ld-linux-*.so.* /lib/ld-linux-*.so.1 /lib64/ld-linux-*.so.2; do
    [ -e "$library" ] || continue
    mkdir -p "image${library%/*}"
    cp -L "$library" "image$library"
done
cp /guest/spark-trace-workload /guest/libspark_trace_simulated_cuda.so image/guest/
tar -c -C image . | docker import - llm >/dev/null && echo "image made"
mkdir -p model workspace
dd if=/dev/urandom of=model/checkpoint bs=1M count=$SIZE 2>/dev/null
echo "checkpoint made"
cat >run.sh <<'RUN'
# What a benchmark does: build the engine in its workspace unless it is there, read it, then serve.
mkdir -p "$1"
[ -f "$1/engine.plan" ] || cp "$2/checkpoint" "$1/engine.plan"
cat "$1/engine.plan" >/dev/null
exec /guest/spark-trace-workload llm --model-dir "$1" --weights-size 16M --kv-limit 64M --prompt 128 \
    --output-length 1 --iterations 1 --warmup 0 --hold 1s --driver simulated
RUN
options="--log --quiet --cuda-library /guest/libspark_trace_simulated_cuda.so"
native() {
    $trace record $options -o "/results/$1.json.zst" -- sh /var/tmp/run.sh "$2" /var/tmp/model >"/results/$1.log" 2>&1
    echo "$1: $?"
}
container() {
    name=$1 workspace=$2
    shift 2
    $trace record $options -o "/results/$name.json.zst" -- docker run --rm --network=none \
        -v /var/tmp/model:/model:ro -v /var/tmp/run.sh:/run.sh:ro "$@" llm /bin/sh /run.sh "$workspace" /model \
        >"/results/$name.log" 2>&1
    echo "$name: $?"
}
drop() {
    sync
    echo 3 >/proc/sys/vm/drop_caches
}
# As published: native first, caches as they are, the container's workspace in its own layer.
drop
native native /var/tmp/workspace
container container /tmp/trtllm_workspace
# One workspace on the host for both, and nothing cached before.
drop
native native-shared /var/tmp/workspace
drop
container container-shared /tmp/trtllm_workspace -v /var/tmp/workspace:/tmp/trtllm_workspace
for pair in "native container" "native-shared container-shared"; do
    set -- $pair
    $trace diff "/results/$1.json.zst" "/results/$2.json.zst" --plane system >"/results/diff-$2.txt"
    $trace kv "/results/$1.json.zst" "/results/$2.json.zst" >"/results/kv-$2.txt"
    $trace report "/results/$1.json.zst" "/results/$2.json.zst" -o "/results/$2.html"
done
tail -n 3 /results/*.log
