"""Inputs that ffmpeg makes: every codec in scope, every fragment flag that changes the boxes.

HE-AAC: Debian's ffmpeg has no encoder for it (libfdk_aac is not free software), so its packets are taken from
the HE-AAC file among the vectors and fragmented anew.
"""
from judge.programs import FFMPEG, VECTORS, run

SECONDS = 5
# A chord, a sweep and a little noise, different on both sides: packets of many sizes, and no two alike.
TONE = ("aevalsrc=0.3*sin(2*PI*220*t)+0.2*sin(2*PI*(300+40*t)*t)+0.05*(random(0)-0.5)"
        "|0.3*sin(2*PI*330*t)+0.05*(random(1)-0.5):s=48000")
HE_AAC = VECTORS / "shaka-packager" / "acc-he" / "bear-640x360-aac_he-silent_right-audio.mp4"
CODECS = {
    "aac": ["-c:a", "aac", "-b:a", "128k"],
    "opus": ["-c:a", "libopus", "-b:a", "96k"],
    "flac": ["-c:a", "flac", "-strict", "-2"],
    "alac": ["-c:a", "alac"],
    "ac3": ["-c:a", "ac3", "-b:a", "192k"],
    "eac3": ["-c:a", "eac3", "-b:a", "192k"],
    "he-aac": ["-c:a", "copy"],
}
FRAGMENT_US = "1000000"
FLAGS = {
    "default_base_moof": ["-movflags", "frag_keyframe+empty_moov+default_base_moof", "-frag_duration", FRAGMENT_US],
    "base_data_offset": ["-movflags", "empty_moov", "-frag_duration", FRAGMENT_US],
    "omit_tfhd_offset": ["-movflags", "empty_moov+omit_tfhd_offset", "-frag_duration", FRAGMENT_US],
    "separate_moof": ["-movflags", "empty_moov+separate_moof+default_base_moof", "-frag_duration", "500000"],
    "negative_cts": ["-movflags", "empty_moov+negative_cts_offsets+default_base_moof", "-frag_duration", FRAGMENT_US],
    "dash": ["-movflags", "dash", "-frag_duration", FRAGMENT_US],
    "cmaf": ["-movflags", "cmaf", "-frag_duration", FRAGMENT_US],
    "global_sidx": ["-movflags", "dash+global_sidx", "-frag_duration", FRAGMENT_US],
    "skip_trailer": ["-movflags", "cmaf+skip_trailer", "-frag_duration", FRAGMENT_US],
    "every_frame": ["-movflags", "frag_every_frame+empty_moov+default_base_moof"],
    "edit_list": ["-movflags", "delay_moov+default_base_moof", "-use_editlist", "1", "-frag_duration", FRAGMENT_US],
    "prft": ["-movflags", "cmaf+delay_moov", "-write_prft", "pts", "-frag_duration", FRAGMENT_US],
    "frag_size": ["-movflags", "cmaf", "-frag_size", "7000"],
}
# AAC, the common case, meets every flag; the others meet those that change what surrounds their packets.
OTHERS = ["default_base_moof", "base_data_offset", "dash", "edit_list"]
PROGRESSIVE = ["-movflags", "faststart"]
PARTLY = ["-movflags", "frag_keyframe", "-frag_duration", FRAGMENT_US]


def recipes():
    """[(name, codec, flags)]."""
    out = []
    for codec in CODECS:
        for name, flags in FLAGS.items():
            if codec == "aac" or name in OTHERS:
                out.append((f"{codec}-{name}", codec, flags))
    out.append(("aac-progressive", "aac", PROGRESSIVE))
    out.append(("aac-partly-fragmented", "aac", PARTLY))
    return out


def make(path, codec, flags, seconds=SECONDS):
    """Writes one file; returns what went wrong or None."""
    source = ["-i", HE_AAC] if codec == "he-aac" else ["-f", "lavfi", "-i", TONE, "-t", str(seconds)]
    flags = list(flags)
    if codec in ("ac3", "eac3") and "delay_moov" not in flags[1]:
        flags[1] += "+delay_moov"  # its configuration is known only once a packet is there
    r = run(FFMPEG, "-v", "error", "-nostdin", "-y", *source, *CODECS[codec], "-fflags", "+bitexact", *flags, path)
    return None if r.code == 0 else r
