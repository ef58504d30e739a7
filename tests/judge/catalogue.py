"""A small media folder with every kind of source: files and folders, every codec, odd structures, odd names."""
import shutil

from golden import made
from judge import synth
from judge.programs import FFMPEG, VECTORS



def parts_of(target, init, segments):
    """A track as a folder: init.mp4 and numbered segments."""
    target.mkdir(parents=True)
    shutil.copyfile(init, target / "init.mp4")
    for number, path in enumerate(segments, 1):
        shutil.copyfile(path, target / f"{number}.m4s")


def build(media):
    """Fills `media`; returns {(asset, track): clear bytes}. Folders count as their parts back to back."""
    tracks = {}

    def file(asset, track, data):
        path = media / asset / f"{track}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        tracks[asset, track] = data

    def copy(asset, track, name):
        file(asset, track, (VECTORS / name).read_bytes())

    def folder(asset, track, where, init, pattern, numbers):
        segments = [VECTORS / where / pattern.format(n) for n in numbers]
        parts_of(media / asset / track, VECTORS / where / init, segments)
        tracks[asset, track] = b"".join(p.read_bytes() for p in [VECTORS / where / init, *segments])

    if FFMPEG:
        for track, codec, rate in (("aac-96", "aac", "96k"), ("aac-160", "aac", "160k"), ("aac-320", "aac", "320k"),
                                   ("opus", "opus", "96k"), ("flac", "flac", None)):
            path = media / "album" / "song" / f"{track}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            flags = ["-movflags", "cmaf", "-frag_duration", "500000"] + (["-b:a", rate] if rate else [])
            problem = made.make(path, codec, flags, seconds=12)
            if problem:
                raise RuntimeError(problem)
            tracks["album/song", track] = path.read_bytes()
    shaka = "shaka-packager"
    copy("bear", "aac", f"{shaka}/encryption/decrypted-bear-640x360-audio-0.mp4")
    copy("bear", "he", f"{shaka}/acc-he/bear-640x360-aac_he-silent_right-audio.mp4")
    copy("bear", "mpeg2", f"{shaka}/inputs/bear-mpeg2-aac-only_frag.mp4")
    copy("one/opus", "opus", "androidx-media/mp4/sample_opus_fragmented.mp4")
    copy("one/ac3", "ac3", "androidx-media/mp4/sample_ac3_fragmented.mp4")
    copy("one/joc", "ec3", "androidx-media/mp4/sample_eac3joc_fragmented.mp4")
    folder("folder/cmaf", "audio", "androidx-media/cmaf/multi-segment", "audio_init.mp4", "audio_{}.m4s", range(1, 13))
    folder("folder/bear", "audio", f"{shaka}/dash-start-number", "bear-640x360-audio-init.mp4", "bear-640x360-audio-{}.m4s",
           range(0, 3))
    for build_one in synth.STRUCTURES:
        file(f"synth/{build_one.__name__}", "a", build_one()[0])
    file("odd names/ä & 'ö' 100%", "t-1.x", synth.indexed()[0])
    return tracks
