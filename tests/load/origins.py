#!/usr/bin/env python3
"""Manifests as other packagers and origins write them, served by nginx: origins.py SLUICE

What listeners ask for is held against what tests/judge/listened.py, which shares nothing with the command, reads in them; what is
not read is refused in one line."""
import concurrent.futures
import gzip
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from judge.listened import Plays  # noqa: E402
from judge.listening import Listening  # noqa: E402
from judge.load import Load  # noqa: E402
from judge.ports import free_port  # noqa: E402
from judge.programs import FFMPEG, PACKAGER, run  # noqa: E402
from judge.tap import Tap  # noqa: E402

CONF = """
daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/errors;
events {{ worker_connections 512; }}
http {{
  access_log off; client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5; keepalive_requests 100000;
  server {{
    listen 127.0.0.1:{port}; root {folder}/www;
    gzip on; gzip_min_length 1; gzip_types *;
    location ~ ^/m301/(.*)$ {{ return 301 /$1$is_args$args; }}
    location ~ ^/m302/(.*)$ {{ absolute_redirect off; return 302 /$1; }}
    location ~ ^/m307/(.*)$ {{ return 307 /$1; }}
    location ~ ^/m308/(.*)$ {{ return 308 http://127.0.0.1:{port}/m301/$1; }}
    location ~ ^/loop/(.*)$ {{ return 302 /loop/$1x; }}
    location ~ ^/away/(.*)$ {{ return 302 http://cdn.example:81/$1; }}
    location /zipped/ {{ gzip off; add_header Content-Encoding gzip; }}
    location /br/ {{ gzip off; add_header Content-Encoding br; }}
  }}
}}
"""
SCENARIO = """seed: 5
arrivals: [ {{ for: 1s, rate: {rate} }} ]
drain: 3s
catalogue: {{ shape: 0, manifests: [{manifests}] }}
player: {{ ahead: 64, tracks: 1, skip: 0 }}
level: {{ errors: 0, lag_p99_ms: 60000 }}
"""


def nginx(folder, port):
    (folder / "conf").write_text(CONF.format(folder=folder, port=port))
    p = subprocess.Popen(["nginx", "-c", str(folder / "conf"), "-p", str(folder)], stderr=subprocess.DEVNULL)
    for _ in range(200):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return p
        except OSError:
            time.sleep(0.05)
    p.kill()
    raise RuntimeError("nginx does not listen")


def tone(path, hertz, rate, seconds=6.5, flags=("-movflags", "+faststart")):
    r = run(FFMPEG, "-v", "error", "-nostdin", "-y", "-f", "lavfi", "-i", f"sine={hertz}:sample_rate=48000", "-t", seconds, "-c:a", "aac", "-b:a",
            f"{rate}k", *flags, path)
    assert r.code == 0, r


def shaka(www, songs):
    """Four packagings; returns the manifests."""
    (www / "shaka").mkdir()

    def pack(name, streams, *flags):
        folder = www / "shaka" / name
        folder.mkdir()
        r = run(PACKAGER, *streams, "--segment_duration", "2", "--mpd_output", "m.mpd", "--hls_master_playlist_output", "m.m3u8", *flags, "--quiet", cwd=folder)
        assert r.code == 0, r
        return [f"/shaka/{name}/m.mpd", f"/shaka/{name}/m.m3u8"]
    each = list(enumerate(songs))
    return (pack("on-demand", [f"in={s},stream=audio,output={k}.mp4,playlist_name={k}.m3u8,hls_group_id=audio,hls_name=n{k},lang={'en' if k < 2 else 'de'}" for k, s in each]) +
            pack("live", [f"in={s},stream=audio,init_segment={k}/init.mp4,segment_template={k}/$Number%05d$.m4s,playlist_name={k}/p.m3u8,hls_group_id=g{k},hls_name=n{k},"
                          f"lang={'en' if k < 2 else 'de'}" for k, s in each], "--generate_static_live_mpd") +
            pack("times", [f"in={s},stream=audio,init_segment=i{k}.mp4,segment_template=s-{k}-$Time$.m4s,playlist_name=p{k}.m3u8" for k, s in each], "--generate_static_live_mpd",
                 "--hls_playlist_type", "VOD") +
            pack("bases", [f"in={songs[0]},stream=audio,init_segment=init.mp4,segment_template=$Number$.m4s,playlist_name=p.m3u8"], "--generate_static_live_mpd",
                 "--base_urls", "/shaka/bases/", "--hls_base_url", "/shaka/bases/"))


def ffmpeg(www, songs):
    (www / "ff").mkdir()

    def make(name, *flags, out="p.m3u8"):
        folder = www / "ff" / name
        folder.mkdir()
        r = run(FFMPEG, "-v", "error", "-nostdin", "-y", "-i", songs[0], "-i", songs[1], "-c", "copy", *flags, out, cwd=folder)
        assert r.code == 0, r
        return f"/ff/{name}"
    one, hls = ["-map", "0"], ["-f", "hls", "-hls_time", "2", "-hls_playlist_type", "vod"]
    both = ["-map", "0", "-map", "1", "-f", "dash", "-seg_duration", "2"]
    return [make("hls-fmp4", *one, *hls, "-hls_segment_type", "fmp4") + "/p.m3u8",
            make("hls-file", *one, *hls, "-hls_segment_type", "fmp4", "-hls_flags", "single_file") + "/p.m3u8",
            make("hls-ts", *one, *hls) + "/p.m3u8",
            make("hls-ts-file", *one, *hls, "-hls_flags", "single_file") + "/p.m3u8",
            make("hls-master", "-map", "0", "-map", "1", *hls, "-hls_segment_type", "fmp4", "-var_stream_map", "a:0 a:1", "-master_pl_name", "m.m3u8", out="%v/p.m3u8") + "/m.m3u8",
            make("dash", *both, out="m.mpd") + "/m.mpd",
            make("dash-even", *both, "-use_timeline", "0", out="m.mpd") + "/m.mpd",
            make("dash-list", *both, "-use_template", "0", out="m.mpd") + "/m.mpd",
            make("dash-list-even", *both, "-use_template", "0", "-use_timeline", "0", out="m.mpd") + "/m.mpd",
            make("dash-file", *both, "-single_file", "1", out="m.mpd") + "/m.mpd",
            make("dash-hls", *both, "-hls_playlist", "1", out="m.mpd") + "/master.m3u8"]


def mpd(body, duration=True, **attributes):
    attributes.update({"mediaPresentationDuration": "PT6.5S"} if duration else {})
    return ('<?xml version="1.0" encoding="utf-8"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" xmlns:xlink="http://www.w3.org/1999/xlink" type="static" minBufferTime="PT2S" '
            + " ".join(f'{k}="{v}"' for k, v in attributes.items()) + ">\n" + body + "\n</MPD>\n")


def rep(inside="", name="a", bandwidth=64000):
    return f'<Representation id="{name}" bandwidth="{bandwidth}" codecs="mp4a.40.2">{inside}</Representation>'


def audio(inside, **attributes):
    return '<AdaptationSet mimeType="audio/mp4" ' + " ".join(f'{k}="{v}"' for k, v in attributes.items()) + f">\n{inside}</AdaptationSet>\n"


TIMELINE = '<SegmentTimeline><S t="0" d="96000" r="2"/><S d="24000"/></SegmentTimeline>'
TEMPLATE = '<SegmentTemplate timescale="48000" startNumber="1" initialization="i-$RepresentationID$.mp4" media="s-$RepresentationID$-$Number$.m4s">' + TIMELINE + "</SegmentTemplate>"
PLAIN = audio(TEMPLATE + rep())
VIDEO = ('<AdaptationSet contentType="video" mimeType="video/mp4"><SegmentTemplate timescale="1" duration="2" initialization="v/i" media="v/$Number$"/>'
         '<Representation id="v" bandwidth="900000" codecs="avc1.64001f"/></AdaptationSet>\n'
         '<AdaptationSet mimeType="text/vtt"><Representation id="t" bandwidth="1"><BaseURL>t.vtt</BaseURL></Representation></AdaptationSet>\n')


def by_hand(port):
    """{path: text} of manifests in the forms that origins are documented to write, and of what standards allow."""
    here = f"http://127.0.0.1:{port}"
    listed = ('<SegmentList timescale="1000" duration="2000" startNumber="1"><Initialization sourceURL="init-f1-a1.mp4"/>'
              + "".join(f'<SegmentURL media="fragment-{k}-f1-a1.m4s"/>' for k in (1, 2, 3, 4)) + "</SegmentList>")
    m3u = "#EXTM3U\n#EXT-X-VERSION:8\n#EXT-X-TARGETDURATION:2\n#EXT-X-PLAYLIST-TYPE:VOD\n"
    segments = "".join(f"#EXTINF:2,\n{{}}{k}{{}}\n" for k in (1, 2, 3)) + "#EXT-X-ENDLIST\n"
    return {
        # BaseURL: at each level, absolute and relative, with others beside it
        "/base/mpd.mpd": mpd(f"<BaseURL>{here}/other/</BaseURL><Period>{PLAIN}</Period>"),
        "/base/period.mpd": mpd(f"<Period><BaseURL>deep/er/</BaseURL>{PLAIN}</Period>"),
        "/base/set.mpd": mpd(f"<Period>{audio('<BaseURL>/abs/</BaseURL>' + TEMPLATE + rep())}</Period>"),
        "/base/rep.mpd": mpd(f"<Period>{audio(TEMPLATE + rep('<BaseURL>a/</BaseURL>') + rep('<BaseURL>../b/</BaseURL>', 'b', 128000))}</Period>"),
        "/base/all.mpd": mpd("<BaseURL>one/</BaseURL><Period><BaseURL>two/</BaseURL>" + audio("<BaseURL>three/</BaseURL>" + TEMPLATE + rep("<BaseURL>\n four/ \n</BaseURL>")) + "</Period>"),
        "/base/up.mpd": mpd("<BaseURL>x/y/z/</BaseURL><Period>" + audio("<BaseURL>../../w/</BaseURL>" + TEMPLATE + rep()) + "</Period>"),
        "/base/several.mpd": mpd(f"<BaseURL serviceLocation='cdn'>https://cdn.example/x/</BaseURL><BaseURL>{here}/other/</BaseURL><BaseURL>never/</BaseURL><Period>{PLAIN}</Period>"),
        "/base/over.mpd": mpd(f"<BaseURL>https://cdn.example/x/</BaseURL><Period>{audio(f'<BaseURL>{here.upper()}/over/</BaseURL>' + TEMPLATE + rep())}</Period>"),
        # nginx-vod-module: absolute templates of even length; lists; a timeline
        "/vod/song/manifest.mpd": mpd("<Period>" + audio(f'<SegmentTemplate timescale="1000" media="{here}/vod/song/fragment-$Number$-$RepresentationID$.m4s" '
                                      f'initialization="{here}/vod/song/init-$RepresentationID$.mp4" duration="2000" startNumber="1"/>' + rep(name="f1-a1-x3") + rep(name="f2-a1-x3")) + "</Period>"),
        "/vod/song/list.mpd": mpd("<Period>" + audio(rep(f"<BaseURL>{here}/vod/song/</BaseURL>" + listed)) + "</Period>"),
        "/vod/song/timed.mpd": mpd('<Period id="0" duration="PT6.5S">' + audio('<SegmentTemplate timescale="1000" media="fragment-$Number$-$RepresentationID$.m4s" initialization="init-$RepresentationID$.mp4" '
                                   'startNumber="1"><SegmentTimeline><S d="2000" r="-1"/></SegmentTimeline></SegmentTemplate>' + rep(name="f1-a1-x3")) + "</Period>"),
        "/vod/song/master.m3u8": "#EXTM3U\n#EXT-X-STREAM-INF:PROGRAM-ID=1,BANDWIDTH=64000,CODECS=\"mp4a.40.2\"\n" + f"{here}/vod/song/index-f1-a1.m3u8\n\n"
                                 "#EXT-X-STREAM-INF:PROGRAM-ID=1,BANDWIDTH=128000,CODECS=\"mp4a.40.2\"\n" + f"{here}/vod/song/index-f2-a1.m3u8\n",
        "/vod/song/index-f1-a1.m3u8": m3u + '#EXT-X-MAP:URI="init-f1-a1.mp4"\n' + segments.format(*[f"{here}/vod/song/seg-", "-f1-a1.m4s"] * 3),
        "/vod/song/index-f2-a1.m3u8": m3u + segments.format(*["seg-", "-f2-a1.ts"] * 3),
        # Unified Origin: BaseURL of the Period, times in names; playlists beside the track with '=' and queries
        "/usp/song.ism/.mpd": mpd('<Period id="1" duration="PT6.5S"><BaseURL>dash/</BaseURL>'
                                  + audio('<SegmentTemplate timescale="48000" initialization="song-$RepresentationID$.dash" media="song-$RepresentationID$-$Time$.dash">'
                                          '<SegmentTimeline><S t="0" d="96256" r="2" /><S d="23232" /></SegmentTimeline></SegmentTemplate>'
                                          + rep(name="audio_eng=64000") + rep(name="audio_eng=128000"), lang="en", group="1")
                                  + audio('<SegmentTemplate timescale="48000" initialization="song-$RepresentationID$.dash" media="song-$RepresentationID$-$Time$.dash">'
                                          '<SegmentTimeline><S t="512" d="96256" r="3"/></SegmentTimeline></SegmentTemplate>' + rep(name="audio_deu=64000"), lang="de", group="1") + "</Period>"),
        "/usp/song.ism/.m3u8": '#EXTM3U\n#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="audio-aacl-64",LANGUAGE="en",NAME="English",DEFAULT=YES,AUTOSELECT=YES,CHANNELS="2",URI="song-audio_eng=64000.m3u8?hdnts=x~y"\n'
                               '#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="audio-aacl-64",LANGUAGE="de",NAME="Deutsch",AUTOSELECT=YES,CHANNELS="2",URI="song-audio_deu=64000.m3u8?hdnts=x~y"\n'
                               '#EXT-X-MEDIA:TYPE=SUBTITLES,GROUP-ID="s",NAME="x",URI="subs.m3u8"\n'
                               '#EXT-X-STREAM-INF:BANDWIDTH=700000,CODECS="mp4a.40.2,avc1.42C00D",RESOLUTION=384x288,AUDIO="audio-aacl-64",SUBTITLES="s"\nsong-video=500000.m3u8\n'
                               '#EXT-X-STREAM-INF:BANDWIDTH=900000,CODECS="mp4a.40.2,avc1.42C00D",RESOLUTION=768x576,AUDIO="audio-aacl-64"\nsong-video=700000.m3u8\n'
                               '#EXT-X-I-FRAME-STREAM-INF:BANDWIDTH=1,URI="k.m3u8"\n',
        "/usp/song.ism/song-audio_eng=64000.m3u8": m3u + '#EXT-X-MAP:URI="song-audio_eng=64000.m4s"\n' + segments.format(*["song-audio_eng=64000-", ".m4s?hdnts=a/../b"] * 3),
        "/usp/song.ism/song-audio_deu=64000.m3u8": m3u + segments.format(*["song-audio_deu=64000-", ".aac"] * 3),
        # MediaPackage: queries on everything, several Periods with other ids and offsets, parents
        "/out/v1/abc/index.mpd": mpd(
            '<Period start="PT0S" id="1" duration="PT4S">' + VIDEO + audio('<SegmentTemplate timescale="48000" media="index_audio_3_0_$Number$.mp4?m=1532451703&amp;k=$Bandwidth$" '
            'initialization="index_audio_3_0_init.mp4?m=1532451703" startNumber="2349899" presentationTimeOffset="1062336677920"><SegmentTimeline><S t="1062336677920" d="96000" r="1"/></SegmentTimeline>'
            '</SegmentTemplate>' + rep(name="3") + rep(name="4", bandwidth=96000)) + "</Period>\n"
            '<Period start="PT4S" id="ad"><BaseURL>../../ads/7/</BaseURL>' + audio('<SegmentTemplate timescale="1000" duration="1000" initialization="ad-$RepresentationID$.mp4" media="ad-$RepresentationID$-$Number%03d$.mp4"/>'
            + rep(name="x")) + "</Period>\n"
            '<Period start="PT6S" id="2">' + audio('<SegmentTemplate timescale="48000" media="index_audio_$RepresentationID$_1_$Time$.mp4?m=2" initialization="index_audio_$RepresentationID$_1_init.mp4?m=2" '
            'presentationTimeOffset="96000"><SegmentTimeline><S t="96000" d="24000"/></SegmentTimeline></SegmentTemplate>' + rep(name="5") + rep(name="3")) + "</Period>\n"
            '<Period start="PT6.5S" id="3">' + VIDEO + "</Period>"),
        "/out/v1/abc/index.m3u8": '#EXTM3U\n#EXT-X-VERSION:6\n#EXT-X-INDEPENDENT-SEGMENTS\n#EXT-X-STREAM-INF:BANDWIDTH=64000,AVERAGE-BANDWIDTH=1,CODECS="mp4a.40.2"\nindex_1_0.m3u8?aws.sessionId=a-b\n',
        "/out/v1/abc/index_1_0.m3u8": m3u + '#EXT-X-MAP:URI="../../v1/abc/index_1_0_init.mp4?m=1"\n#EXT-X-PROGRAM-DATE-TIME:2026-01-01T00:00:00Z\n#EXTINF:2,\n../../v1/abc/index_1_0_1.mp4?m=1\n'
                                      '#EXT-X-CUE-OUT:2\n#EXT-X-DISCONTINUITY\n#EXT-X-MAP:URI="/ads/7/init.mp4"\n#EXTINF:2,\n/ads/7/1.mp4\n#EXT-X-CUE-IN\n#EXT-X-DISCONTINUITY\n'
                                      '#EXT-X-MAP:URI="index_1_0_init.mp4?m=1"\n#EXTINF:2,title, with a comma\nindex_1_0_2.mp4?m=1\n#EXT-X-DISCONTINUITY\n'
                                      '#EXT-X-MAP:URI="index_1_0_init.mp4?m=1"\n#EXTINF:2\nindex_1_0_3.mp4?m=1\n#EXT-X-ENDLIST\n',
        # Bento4: padded numbers in folders; one file with ranges; on demand is shaka's form
        "/bento/split.mpd": mpd("<Period>" + audio('<SegmentTemplate initialization="$RepresentationID$/init.mp4" media="$RepresentationID$/seg-$Number%04d$.m4s" startNumber="0" timescale="1000" duration="2000"/>'
                                + rep(name="audio/en/mp4a.40.2"), lang="en", startWithSAP="1") + "</Period>"),
        "/bento/whole.mpd": mpd("<Period>" + audio(rep('<BaseURL>file.mp4</BaseURL><SegmentList timescale="1000" duration="2000"><Initialization sourceURL="init.mp4" range="0-99"/><SegmentURL mediaRange="100-199"/>'
                                '<SegmentURL mediaRange="200-299"/><SegmentURL media="file2.mp4" mediaRange="0-9"/><SegmentURL mediaRange="300-309"/></SegmentList>')) + "</Period>"),
        "/bento/stream.m3u8": m3u.replace("VERSION:8", "VERSION:7") + '#EXT-X-MAP:URI="file.mp4",BYTERANGE="100@10"\n#EXTINF:2,\n#EXT-X-BYTERANGE:50@110\nfile.mp4\n#EXTINF:2,\n#EXT-X-BYTERANGE:60\nfile.mp4\n'
                              '#EXT-X-BYTERANGE:70\n#EXTINF:2,\nfile.mp4\n#EXT-X-MAP:URI="file2.mp4",BYTERANGE="10"\n#EXTINF:1,\n#EXT-X-BYTERANGE:5@0\nfile2.mp4\n#EXTINF:1,\nwhole.mp4\n#EXT-X-ENDLIST\n',
        # what the standards allow besides
        "/std/inherit/m.mpd": mpd('<Period><SegmentTemplate timescale="48000" startNumber="7" initialization="in/$RepresentationID$"/>' + audio(
            f'<SegmentTemplate media="$RepresentationID$/$Bandwidth%012d$/$Number$$$.m4s">{TIMELINE}</SegmentTemplate>' + rep() + rep('<SegmentTemplate media="b/$Time%09d$"/>', "b", 7)) + "</Period>"),
        "/std/gaps/m.mpd": mpd('<Period>' + audio('<SegmentTemplate timescale="10" media="$Time$" initialization="i"><SegmentTimeline><S t="0" d="20" r="-1"/><S t="40" d="10"/><S d="10" r="-1"/></SegmentTimeline></SegmentTemplate>' + rep()) + "</Period>"),
        "/std/end/m.mpd": mpd('<Period start="PT1H2M0.5S">' + audio('<SegmentTemplate timescale="1" duration="1" endNumber="3" media="$Number$" initialization="i"/>' + rep()) + "</Period>", duration=False),
        "/std/file/m.mpd": mpd("<Period>" + audio(rep("<BaseURL>song.mp4</BaseURL>") + rep("<BaseURL>song2.mp4?x=1</BaseURL>", "b")) + "</Period>"),
        "/std/self/m.mpd": mpd("<Period>" + audio('<SegmentTemplate duration="2" media="$Number$.mp4"/>' + rep()) + "</Period>"),
        "/std/define/m.m3u8": m3u + '#EXT-X-DEFINE:NAME="at",VALUE="dir/v1"\n#EXT-X-DEFINE:NAME="q",VALUE="k=1&l=2"\n#EXT-X-MAP:URI="{$at}/init.mp4?{$q}"\n' + segments.format(*["{$at}/", ".m4s?{$q}"] * 3),
        "/std/query/m.m3u8": m3u + '#EXT-X-DEFINE:QUERYPARAM="token"\n#EXT-X-MAP:URI="q/init.mp4?t={$token}"\n' + segments.format(*["q/", ".m4s?t={$token}"] * 3),
        # compressed, whatever was asked for
        "/zipped/m.m3u8": gzip.compress(b"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nindex-1.m3u8\n"),
        "/zipped/index-1.m3u8": gzip.compress((m3u + segments.format(*["/base/z-", ".aac"] * 3)).encode()),
        "/zipped/m.mpd": gzip.compress(mpd("<BaseURL>/base/</BaseURL><Period>" + PLAIN + "</Period>").encode()),
        "/std/odd/m.m3u8": m3u.replace("\n", "\r\n") + "# a comment\r\n\r\n" + segments.format("./a/./b/../", ".aac#t=1", "//127.0.0.1:%d/n/" % port, ".aac?u=http://x/../y", "/std/\xe9 ", ".aac").replace("\n", "\r\n"),
    }


# Requests that lead elsewhere first.
MOVED = ["/m301/ff/dash/m.mpd", "/m302/ff/hls-fmp4/p.m3u8", "/m307/shaka/on-demand/m.mpd", "/m308/vod/song/master.m3u8"]
MOVED_SEGMENTS = {"/moved/m.mpd": mpd("<BaseURL>/m302/base/</BaseURL><Period>" + PLAIN + "</Period>"),
                  "/moved/file.mpd": mpd("<BaseURL>/m307/</BaseURL><Period>" + audio(rep('<BaseURL>bento/file.mp4</BaseURL><SegmentList duration="2"><SegmentURL mediaRange="0-9"/>'
                                         '<SegmentURL mediaRange="10-19"/></SegmentList>')) + "</Period>")}


def refusals(port, elsewhere):
    """{path: (text, what the line says)} of what is not read."""
    m3u = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n"
    end = "#EXTINF:2,\n1.m4s\n#EXT-X-ENDLIST\n"
    template = TEMPLATE.replace(TIMELINE, "{}")
    return {
        "/no/other.mpd": (mpd("<BaseURL>http://cdn.example/x/</BaseURL>\n<Period>" + PLAIN + "</Period>"), "line 5: BaseURL leads to http://cdn.example/x/, which is not the target: give that as --target, or write relative URIs"),
        "/no/template.mpd": (mpd("<Period>" + audio(TEMPLATE.replace('media="', 'media="//cdn.example:8/') + rep()) + "</Period>"), "leads to //cdn.example:8, which is not the target"),
        "/no/port.m3u8": (m3u + f"#EXTINF:2,\nhttp://127.0.0.1:{elsewhere}/1.m4s\n#EXT-X-ENDLIST\n", f"line 4: leads to http://127.0.0.1:{elsewhere}, which is not the target"),
        "/no/https.m3u8": (f"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nhttps://127.0.0.1:{port}/1.m3u8\n", "line 3: leads to https://127.0.0.1:"),
        "/no/data.m3u8": (m3u + '#EXT-X-MAP:URI="data:audio/mp4;base64,AAAA"\n' + end, "line 3: leads to data:"),
        "/no/live.m3u8": (m3u + "#EXTINF:2,\n1.m4s\n", "lacks #EXT-X-ENDLIST: it is live"),
        "/no/live.mpd": (mpd("<Period>" + PLAIN + "</Period>").replace('"static"', '"dynamic"'), "line 2: MPD@type is dynamic: it is live"),
        "/no/import.m3u8": (m3u + '#EXT-X-DEFINE:IMPORT="x"\n' + end, "line 3: #EXT-X-DEFINE with IMPORT is not read: give NAME and VALUE"),
        "/no/undefined.m3u8": (m3u + '#EXT-X-DEFINE:NAME="x",VALUE="y"\n#EXT-X-MAP:URI="{$z}"\n' + end, "line 4: the variable z is not defined"),
        "/no/parameter.m3u8": (m3u + '#EXT-X-DEFINE:QUERYPARAM="x"\n' + end, "line 3: #EXT-X-DEFINE: the playlist's own URL has no parameter x"),
        "/no/offset.m3u8": (m3u + "#EXTINF:2,\n#EXT-X-BYTERANGE:5\n1.m4s\n#EXT-X-ENDLIST\n", "line 5: #EXT-X-BYTERANGE says no offset"),
        "/no/gap.m3u8": (m3u + "#EXT-X-GAP\n" + end, "line 3: #EXT-X-GAP is not read"),
        "/no/sidx.mpd": (mpd("<Period>" + audio(rep("<BaseURL>x.mp4</BaseURL><SegmentBase/>")) + "</Period>"), "line 4: SegmentBase has no @indexRange"),
        "/no/nosidx.mpd": (mpd("<Period>" + audio(rep('<BaseURL>/bento/file.mp4</BaseURL><SegmentBase indexRange="0-99"/>')) + "</Period>"), "/bento/file.mp4: no whole sidx lies in bytes 0-99"),
        "/no/periods.mpd": (mpd(('<Period duration="PT1S">' + audio(rep('<BaseURL>x.mp4</BaseURL><SegmentBase indexRange="1-2"/>')) + "</Period>") * 2), "several Periods with SegmentBase are not read: use"),
        "/no/remote.mpd": (mpd('<Period xlink:href="http://x/"/>'), "line 3: xlink:href is not followed: write the Period itself"),
        "/no/number.mpd": (mpd("<Period>" + audio(TEMPLATE.replace("$Number$", "$SubNumber$") + rep()) + "</Period>"), "SegmentTemplate@media cannot be expanded: it names another $identifier$"),
        "/no/nothing.mpd": (mpd("<Period>" + audio(template.format("") + rep()) + "</Period>"), "line 4: SegmentTemplate has neither a SegmentTimeline nor @duration"),
        "/no/length.mpd": (mpd("<Period>" + audio('<SegmentTemplate duration="1" media="$Number$"/>' + rep()) + "</Period>", duration=False), "needs MPD@mediaPresentationDuration or Period@duration"),
        "/no/open.mpd": (mpd("<Period>" + audio('<SegmentTemplate media="$Number$"><SegmentTimeline><S d="1" r="-1"/></SegmentTimeline></SegmentTemplate>' + rep()) + "</Period>", duration=False),
                         "S@r is negative, and neither another S@t nor the Period's duration says how long"),
        "/no/video.mpd": (mpd("<Period>" + VIDEO + "</Period>"), "the MPD has no Representation of audio with segments"),
        "/no/text.m3u8": ("no playlist\n", "line 1: the first line is not #EXTM3U"),
        "/zipped/cut.m3u8": (gzip.compress((m3u + end).encode())[:-9], "/zipped/cut.m3u8: its gzip is cut off"),
        "/zipped/plain.mpd": (mpd("<Period>" + PLAIN + "</Period>"), "/zipped/plain.mpd: its gzip is damaged: incorrect header check"),
        "/br/m.m3u8": (m3u + end, "/br/m.m3u8: it comes with Content-Encoding: br, and no Accept-Encoding was sent: have it served as it is, or as gzip"),
        "/no/unsaid.m3u8": (gzip.compress((m3u + end).encode()), "line 1: it is gzip'ed, and no Content-Encoding says so"),
        "/no/unsaid.mpd": (gzip.compress(mpd("<Period>" + PLAIN + "</Period>").encode()), "line 1: it is gzip'ed, and no Content-Encoding says so"),
        "/away/m.mpd": (None, "/away/m.mpd: leads to http://cdn.example:81, which is not the target"),
        "/loop/m.mpd": (None, "more than 5 redirections"),
    }


def write(www, path, content):
    p = www / path.split("?")[0].lstrip("/")
    p.parent.mkdir(parents=True, exist_ok=True)
    p.write_bytes(content if isinstance(content, bytes) else content.encode())


def make_files(www, port, manifests):
    """Something at every path that the reader asks for: what is missing is made, 1,000 bytes of it."""
    class Making(Plays):
        def ask(self, url, span=None):
            path = re.sub(r"^/m30\d/(m301/)?", "/", name_of(url))
            if not (www / path.lstrip("/")).is_file() and not path.startswith("/loop"):
                write(www, path, path.encode().ljust(1000, b"."))
            return super().ask(url, span)
    for m in manifests:
        Making(port).all(m)


def name_of(url):
    return urllib.parse.unquote(urllib.parse.urlsplit(url).path)


def sessions(log):
    """The requests of each session, in order: [(path, range)]."""
    out = {}
    for line in log.read_text().splitlines():
        who, number, request = line.split(" ", 2)
        m = re.search(r"Range: bytes=(\d+)-(\d+)", request)
        assert "Accept-Encoding" not in request, request
        out.setdefault(int(who), []).append((int(number), (request.split(" ")[1], (int(m[1]), int(m[2])) if m else None)))
    return [[x for _, x in sorted(v, key=lambda e: e[0])] for v in out.values()]


def read(tap, load, port, manifests):
    want = {m: Plays(port).all(m) for m in manifests}
    names = ", ".join(f'"{m}"' for m in manifests)
    log = load.folder / "requests"
    r = load(SCENARIO.format(rate=8 * len(manifests), manifests=names), f"http://127.0.0.1:{port}", "--request-log", log)
    tap.ok(r.code == 0 and not r.json["totals"]["first_refused"], "listeners of every manifest hear all of it", f"{r}\n{r.out.decode()}")
    heard = {}
    for s in sessions(log):
        heard.setdefault(s[0][0], []).append(s)
    for m in manifests:
        got = heard.get(m, [])
        other = next((s for s in got if s not in want[m]), None)
        tap.ok(got and other is None and len(want[m]) > 0, f"{m}: {len(want[m])} rendition{'s' * (len(want[m]) > 1)}, {len(want[m][0]) if want[m] else 0} requests",
               f"{len(got)} sessions; one asked\n{other}\nand was to ask one of\n" + "\n".join(map(str, want[m])))
        if len(want[m]) > 1 and len(got) > 5:
            tap.ok(len({tuple(s) for s in got}) > 1, f"{m}: not everybody takes the same")
    moved = sum(len([x for x in s if re.match(r"/m30\d/", x[0])]) for v in heard.values() for s in v)
    tap.equal(r.json["totals"]["redirects"], moved, "redirections are counted")


def single(tap, load, port, manifests):
    """The modes without listeners: segments of the first rendition, parts as parts."""
    for m in manifests:
        log = load.folder / "single"
        r = load(SCENARIO.format(rate=1, manifests=f'"{m}"') + "mode: saturate\nseconds: 1s\nconnections: 1\n", f"http://127.0.0.1:{port}", "--request-log", log)
        asked = list(dict.fromkeys(x for s in sessions(log) for x in s)) if log.exists() else []
        reader = Plays(port)
        reader.all(m)
        want = list(dict.fromkeys(reader.media[0]))
        tap.ok(r.code == 0 and len(asked) > 1 and asked == want, f"{m}: mode saturate asks for its segments", f"{r}\n{asked}\n{want}")


def refused(tap, load, port, cases):
    def one(path):
        return load(SCENARIO.format(rate=1, manifests=f'"{path}"') + "mode: rate\nrate: 1\nseconds: 0.1s\n", f"http://127.0.0.1:{port}")
    for path, (_, what) in cases.items():
        r = one(path)
        lines = r.err.strip().splitlines()
        tap.ok(r.code == 1 and len(lines) == 1 and path.rsplit("/", 1)[0] in r.err + "/no" * ("bento" in what) and what in r.err, f"{path}: refused in a line", f"{r}\nwanted: {what}")
    some = ["/no/other.mpd", "/no/port.m3u8", "/no/nosidx.mpd", "/away/m.mpd", "/zipped/cut.m3u8", "/br/m.m3u8"]
    with concurrent.futures.ThreadPoolExecutor(len(some)) as pool:
        for path, r in zip(some, pool.map(lambda p: load(SCENARIO.format(rate=3, manifests=f'"{p}"').replace("drain", "drain: 1s #"), f"http://127.0.0.1:{port}"), some)):
            out = r.out.decode()
            tap.ok(r.code == 1 and "first refused: /" in out and cases[path][1] in out, f"{path}: mode listeners says so as well", f"{r}\n{out}")


class Elsewhere(Listening):
    """Another host. Nobody is to come."""

    def handle(self, s):
        s.close()


def scenarios(tap, load, port):
    def says(text, what, name, *flags):
        r = load(text, f"http://127.0.0.1:{port}", *flags)
        tap.ok(r.code == 1 and what in r.err, name, r)
    base = SCENARIO.format(rate=1, manifests='"/a.mpd"')
    says(base.replace("manifests:", "assets: [x], manifests:"), "line 4: catalogue.assets is of a sluice, catalogue.manifests of any origin: give one of them", "not both catalogues")
    says(base.replace('"/a.mpd"', "a.mpd"), "line 4: a manifest is a path of the target that starts with '/'", "manifests are paths")
    says(base.replace('"/a.mpd"', ""), "names nothing to ask for", "an empty list")
    says(base, "only a sluice's answers can be compared", "nothing of other origins can be compared", "--verify", load.folder, "--keys", load.folder)


def main():
    tap, sluice = Tap(), sys.argv[1]
    if not shutil.which("nginx"):
        tap.skip("other origins", "nginx is not here")
        tap.end()
    with tempfile.TemporaryDirectory(prefix="sluice-origins-") as work:
        work, port = pathlib.Path(work), free_port()
        www = work / "www"
        work.chmod(0o755)  # nginx's worker may be another user
        www.mkdir()
        songs = [work / f"{k}.mp4" for k in range(3)]
        for k, s in enumerate(songs):
            tone(s, 300 + 100 * k, 64 + 32 * k)
        server = nginx(work, port)
        try:
            manifests = ffmpeg(www, songs)
            if PACKAGER:
                manifests += shaka(www, songs)
            else:
                tap.skip("shaka-packager's manifests", "shaka-packager is not here: tools/npm installs it")
            hand = {**by_hand(port), **MOVED_SEGMENTS}
            for path, text in hand.items():
                write(www, path, text)
            manifests += [p + ("?token=t-1" if "query" in p else "") for p in hand if not re.search(r"index-|song-audio|index_1", p)]
            manifests += [m for m in MOVED if PACKAGER or "shaka" not in m]
            make_files(www, port, manifests)
            load = Load(sluice, work)
            read(tap, load, port, manifests)
            single(tap, load, port, ["/bento/stream.m3u8", "/ff/dash-list/m.mpd", "/ff/hls-file/p.m3u8", "/out/v1/abc/index.mpd", "/zipped/m.m3u8"] + ["/shaka/on-demand/m.mpd", "/m307/shaka/on-demand/m.mpd"] * bool(PACKAGER))
            with Elsewhere() as elsewhere:
                cases = refusals(port, elsewhere.port)
                for path, (text, _) in cases.items():
                    if text is not None:
                        write(www, path, text)
                refused(tap, load, port, cases)
                tap.equal(elsewhere.connections, 0, "and nobody else is asked")
            scenarios(tap, load, port)
        finally:
            server.terminate()
            server.wait(10)
    tap.end()


main()
