#!/bin/busybox sh
# First program in a test machine: loads modules, mounts the disk, goes on from there.
busybox=/bin/busybox
$busybox mount -t devtmpfs dev /dev
$busybox mount -t sysfs sys /sys
while read -r module; do
    $busybox insmod "/modules/$module" || echo "@@ broken cannot load $module"
done </order

tries=0
while [ $tries -lt 100 ]; do
    for controller in /sys/class/nvme/*; do
        # The serial number is padded with blanks.
        read -r serial <"$controller/serial" || continue
        if [ "$serial" = disk ] && [ -b "/dev/${controller##*/}n1" ]; then
            $busybox mount -t ext4 "/dev/${controller##*/}n1" /disk && break 2
        fi
    done
    tries=$((tries + 1))
    $busybox sleep 0.1
done
$busybox mount -t tmpfs run /disk/run
$busybox mkdir /disk/run/modules
$busybox cp /extra/* /disk/run/modules/ 2>/dev/null
$busybox umount /sys
$busybox umount /dev
exec $busybox switch_root /disk /guest/init
