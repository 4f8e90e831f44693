//! What is missing, doubled, cut short or hostile is said, with its place and a way out.

use super::*;

fn with_files(files: &[(&str, &[u8])]) -> Import {
    let mut import = Import::of(&[]);
    for (name, bytes) in files {
        let path = import.folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, bytes).unwrap();
        import.sources.push(Source::new(path));
    }
    import
}

fn bytes(name: &str) -> Vec<u8> {
    std::fs::read(layout(name).path).unwrap()
}

fn refused(import: &Import, words: &[&str]) {
    let error = import.run().unwrap_err().to_string();
    for word in words {
        assert!(error.contains(word), "`{word}` is not in {error}");
    }
    assert!(error.contains("hint: "), "{error}");
    assert!(!import.out().exists());
}

#[test]
fn a_truncated_hdf5_file_is_refused_wherever_it_was_cut() {
    let names = ["TimestampedWords", "Labels", "COVAREP"].map(|name| format!("CMU_MOSEI_{name}.csd"));
    for cut in 0..names.len() {
        let files: Vec<(String, Vec<u8>)> =
            names.iter().map(|name| (name.clone(), bytes(&format!("csd/{name}")))).collect();
        let whole = files[cut].1.len();
        for length in (10..whole).step_by(whole / 40) {
            let mut files: Vec<(&str, &[u8])> =
                files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
            files[cut].1 = &files[cut].1[..length];
            let folds = bytes("csd/cmu_mosei_std_folds.py");
            files.push(("cmu_mosei_std_folds.py", &folds));
            let error = with_files(&files).run().unwrap_err().to_string();
            assert!(error.contains(&names[cut]) && error.contains("hint: "), "cut at {length}: {error}");
        }
    }
}

#[test]
fn bytes_that_were_changed_never_crash_a_reader() {
    let words = bytes("csd/CMU_MOSEI_TimestampedWords.csd");
    let folds = bytes("csd/cmu_mosei_std_folds.py");
    let labels = bytes("csd/CMU_MOSEI_Labels.csd");
    for at in (0..2048).step_by(7) {
        let mut broken = words.clone();
        broken[at] ^= 0xff;
        let files: [(&str, &[u8]); 3] = [("words.csd", &broken), ("labels.csd", &labels), ("folds.py", &folds)];
        let _ = with_files(&files).run();
    }
    for name in ["dialoguernn/tbje_mosei.pkl", "misa/train.pkl", "unimse/mosi_data_0610.pkl", "meld/visual_emotion.pkl"]
    {
        let whole = bytes(name);
        for at in (0..whole.len()).step_by(whole.len() / 60 + 1) {
            let mut broken = whole.clone();
            broken[at] ^= 0x15;
            let _ = with_files(&[("train.pkl", &broken)]).run();
        }
    }
}

#[test]
fn files_that_belong_to_others_say_what_is_missing() {
    refused(&Import::of(&["meld/visual_emotion.pkl"]), &["it has features, and no CSV file with the words is given"]);
    refused(&Import::of(&["unimse/meld_data_0610.pkl"]), &["no CSV file with the words is given"]);
    refused(&Import::of(&["csd/CMU_MOSEI_Labels.csd"]), &["none of the files has words"]);
    let without_folds = ["csd/CMU_MOSEI_Labels.csd", "csd/CMU_MOSEI_TimestampedWords.csd"];
    refused(&Import::of(&without_folds), &["none of the files has the standard folds"]);
    let twice = [
        "csd/CMU_MOSEI_Labels.csd",
        "csd/CMU_MOSEI_TimestampedWords.csd",
        "csd/aligned/words.csd",
        "csd/cmu_mosei_std_folds.py",
    ];
    refused(&Import::of(&twice), &["words.csd: it has the same modality as CMU_MOSEI_TimestampedWords.csd"]);
    refused(&Import::of(&["mult/mosi_data_noalign.pkl", "mult/iemocap_data.pkl"]), &["2 files are given"]);
}

#[test]
fn an_id_without_a_sentence_ends_the_import_or_is_listed() {
    let table = b"video_id,clip_id,text,label\ntrain-v,0,a,1.5\ntrain-v,1,b,-1.5\ntrain-v,2,c,1.5\ntrain-v,3,d,-1.5\nvalid-v,0,e,1.5\n";
    let mut import = with_files(&[("data.pkl", &bytes("mult/mosi_data_noalign.pkl")), ("label.csv", table)]);
    refused(&import, &["data.pkl: valid[1], id `valid-v_1`: label.csv has no sentence of this id", "--skip-bad"]);
    import.options.skip_bad = true;
    let report = import.run().unwrap();
    assert_eq!((report.samples(), report.rejected_count), (5, 3));
    assert_noted(&report, "note: split `test` has no samples");
}

#[test]
fn doubled_ids_are_refused_or_listed() {
    let table = b"id,text,score,split\na,x,1,train\na,y,2,train\nb,z,1,dev\nc,w,1,holdout\n";
    let mut import = with_files(&[("own.csv", table)]);
    refused(&import, &["own.csv: line 3, id `a`: the id appears twice in split `train`"]);
    import.options.skip_bad = true;
    let report = import.run().unwrap();
    assert_eq!((report.samples(), report.rejected_count), (2, 2));
    assert_noted(&report, "unknown split `holdout`, expected train, valid or test");
    let sentences = b"video_id,clip_id,text,label\nv,0,a,1\nv,0,b,1\n";
    let import = with_files(&[("data.pkl", &bytes("mult/mosi_data_noalign.pkl")), ("label.csv", sentences)]);
    refused(&import, &["label.csv: line 3, id `v_0`: the id appears twice"]);
}

#[test]
fn labels_outside_of_the_schema_are_named() {
    let table = |label: &str| format!("id,text,score,split\na,x,{label},train\n");
    refused(&with_files(&[("own.csv", table("3.5").as_bytes())]), &["id `a`: score is 3.5, outside -3 to 3"]);
    refused(&with_files(&[("own.csv", table("good").as_bytes())]), &["score is `good`, not a number"]);
    refused(&with_files(&[("own.csv", table("").as_bytes())]), &["it has neither a score nor an emotion"]);
}

#[test]
fn a_table_cannot_name_files_outside_of_its_folder() {
    for path in ["../secret.npy", "/etc/passwd"] {
        let table = format!("id,text,score,split,audio\na,x,1,train,{path}\n");
        refused(&with_files(&[("own.csv", table.as_bytes())]), &["leads out of the folder of the table"]);
    }
    let table = b"id,text,score,split\n../a,x,1,train\n";
    let import = with_files(&[("own.csv", table)]);
    std::fs::create_dir(import.folder.path().join("audio")).unwrap();
    refused(&import, &["`../a.npy` leads out of the folder of the table"]);
    let table = b"id,text,score,split,audio\na,x,1,train,a.npy\n";
    refused(&with_files(&[("own.csv", table)]), &["a.npy", "No such file"]);
}
