#!/bin/sh
# The Python package vulkan: asking an event for its state raises an exception for either answer.
#
# `vkGetEventStatus` answers with one of two success codes, VK_EVENT_SET and VK_EVENT_RESET. The
# package raises every code but VK_SUCCESS, so the call never returns: it raises VkEventSet or
# VkEventReset. For a fence, `vkGetFenceStatus` returns None when signalled and raises VkNotReady
# when not; an unmet wait raises VkTimeout. All are VkException; the real errors are VkError, which
# is no VkException.
#
# Guess before the run: the code is returned, and errors are raised.
#
# Why it matters: `except VkException` around such a call hides nothing that has gone wrong, and
# catches every answer; `except VkError` lets the answers through. Catch the two by name.
#
# Seen on 2026-11-28 with vulkan 1.3.275.1, Python 3.11, lavapipe of Debian 12's package
# mesa-vulkan-drivers (22.3.6), Linux x86-64:
#   event, reset: VkEventReset
#   event, set: VkEventSet
#   fence, unsignalled: VkNotReady
#   fence, signalled: None
#   semaphore, wait for a value not reached: VkTimeout
#   semaphore, wait for a value reached: None
#   VkEventSet is a VkException: True, a VkError: False
#   VkErrorDeviceLost is a VkException: False, a VkError: True
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
driver=/usr/share/vulkan/icd.d/lvp_icd.x86_64.json
[ -e "$driver" ] || { echo "it needs mesa-vulkan-drivers"; exit 2; }
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --no-cache-dir vulkan==1.3.275.1 cffi==2.1.1
VK_ICD_FILENAMES=$driver VK_DRIVER_FILES=$driver "$dir/venv/bin/python" - <<'PY'
import sys

import vulkan as vk

MILLISECOND = 1_000_000


def outcome(call, *arguments):
    try:
        return call(*arguments)
    except (vk.VkException, vk.VkError) as error:
        return type(error).__name__


application = vk.VkApplicationInfo(apiVersion=vk.VK_MAKE_VERSION(1, 2, 0))
instance = vk.vkCreateInstance(vk.VkInstanceCreateInfo(pApplicationInfo=application), None)
physical = vk.vkEnumeratePhysicalDevices(instance)[0]
timeline = vk.VkPhysicalDeviceTimelineSemaphoreFeatures(timelineSemaphore=True)
queues = [vk.VkDeviceQueueCreateInfo(queueFamilyIndex=0, pQueuePriorities=[1.0])]
made = vk.VkDeviceCreateInfo(pNext=timeline, pQueueCreateInfos=queues)
device = vk.vkCreateDevice(physical, made, None)

event = vk.vkCreateEvent(device, vk.VkEventCreateInfo(), None)
fences = [
    vk.vkCreateFence(device, vk.VkFenceCreateInfo(flags=flags), None)
    for flags in (0, vk.VK_FENCE_CREATE_SIGNALED_BIT)
]
kind = vk.VkSemaphoreTypeCreateInfo(
    semaphoreType=vk.VK_SEMAPHORE_TYPE_TIMELINE, initialValue=3
)
semaphore = vk.vkCreateSemaphore(device, vk.VkSemaphoreCreateInfo(pNext=kind), None)


def wait(value):
    info = vk.VkSemaphoreWaitInfo(pSemaphores=[semaphore], pValues=[value])
    return outcome(vk.vkWaitSemaphores, device, info, MILLISECOND)


seen = {"event, reset": outcome(vk.vkGetEventStatus, device, event)}
vk.vkSetEvent(device, event)
seen["event, set"] = outcome(vk.vkGetEventStatus, device, event)
seen["fence, unsignalled"] = outcome(vk.vkGetFenceStatus, device, fences[0])
seen["fence, signalled"] = outcome(vk.vkGetFenceStatus, device, fences[1])
seen["semaphore, wait for a value not reached"] = wait(5)
seen["semaphore, wait for a value reached"] = wait(2)
for what, answer in seen.items():
    print(f"{what}: {answer}")
expected = ["VkEventReset", "VkEventSet", "VkNotReady", None, "VkTimeout", None]
ok = list(seen.values()) == expected
for name in ("VkEventSet", "VkErrorDeviceLost"):
    error = getattr(vk, name)
    kinds = issubclass(error, vk.VkException), issubclass(error, vk.VkError)
    print(f"{name} is a VkException: {kinds[0]}, a VkError: {kinds[1]}")
    ok = ok and kinds == (name == "VkEventSet", name != "VkEventSet")
sys.exit(0 if ok else "the behaviour has changed")
PY
